"""Pretrained models from packages that pip installs, where no hub can be reached."""
