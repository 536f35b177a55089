"""Vector output of maps: polygons, centre lines and geodesy."""
