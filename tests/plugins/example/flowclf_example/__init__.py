"""Components of another package than flowclf, as its users write them."""
