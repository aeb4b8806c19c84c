"""Launch plans of the Triton kernels: a table per architecture, and the choice among its entries."""
