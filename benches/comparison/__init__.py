"""Measures Tidegate beside nginx, docker-registry and varnish.

`options` reads what is asked for, `content` writes the files that all serve, `servers` and `loads` wrap one program
each, `rows` holds the measurements, `results` and `report` turn them into tables. `processes` owns every child.
"""
