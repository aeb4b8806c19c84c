"""The models that recipes name: loaded, planned without weights, or made from scratch."""
