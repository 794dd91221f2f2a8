"""The parts of `bench/run`: what is started, how it is loaded, what is measured, how it is shown."""
