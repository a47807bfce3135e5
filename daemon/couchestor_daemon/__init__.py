"""The data plane of one node: devices, zones, codecs, log, index, stripes, processes."""
