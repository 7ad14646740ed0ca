"""The mount beside plain ext4 and JuiceFS, in one run: `./dev bench-mount`."""
