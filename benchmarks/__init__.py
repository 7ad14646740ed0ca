"""Every figure that the README states, measured beside its baseline: `./dev bench`."""
