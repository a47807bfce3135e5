"""What a run asks for: sizes, keys, times. Pure: no clock, no socket."""
