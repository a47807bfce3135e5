"""The edge: devices, codecs, index, clocks."""
