"""Buckets, object versions, uploads and the L2P: pure logic over index transactions.

Functions take a reader or writer first, read no clock, check everything before their first write
and change the index only through ``put`` and ``delete``, which is what the log records.
"""
