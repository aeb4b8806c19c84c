"""Pretrained models out of packages that pip installs, where no hub can be reached."""
