"""What reproduces the paper's tables and figures: Table 2, Figure 6, Example 6, and how figures vary from seed to seed."""
