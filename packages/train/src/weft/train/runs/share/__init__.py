"""`weft share`: what tasks can share, measured, proposed and confirmed."""
