"""Fluid's resources (data.fluid.io) turned into ours. All of it is pure."""
