"""The gateway by itself, for deployments that run it beside the server. `treadle up` brings its own."""
