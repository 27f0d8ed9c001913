"""Networks: no losses, no metrics."""
