"""Reproductions of the paper's Table 2, Figure 6 and Example 6, and the variation of results between seeds."""
