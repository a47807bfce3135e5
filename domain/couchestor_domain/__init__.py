"""The words both sides of CoucheStor share: ids, units, errors, events, geometry, placement.

Standard library only, synchronous and pure: nothing here reads a clock, a file or a socket.
"""
