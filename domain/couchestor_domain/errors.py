"""The tree of typed errors, by category and by subsystem.

Category (what the caller can do)            mixed into each leaf
    ClientError        the request is wrong; do not repeat it unchanged
    TransientError     try again after ``retry_after_seconds``
    CapacityError      no room; reads go on
    IntegrityError     stored or sent bytes are not what they claim to be
    UnavailableError   a needed part is missing or broken; a person must act

CouchestorError
|-- ObjectStoreError      NoSuchBucket NoSuchKey NoSuchUpload BucketAlreadyExists BucketNotEmpty
|                         PreconditionFailed InvalidPart InvalidPartOrder PartTooSmall BodyTruncated
|                         BodyTooLong DigestMismatch StoreFull StoreReadOnly Overloaded
|                         VersionGone NoSuchVersion DeleteMarker NoSuchSetting
|-- DeviceError           DeviceGone DeviceStalled DeviceIo DeviceUnfit DeviceFull DeviceStarved
|                         ForeignDevice StaleDevice DeviceInUse DuplicateDevice
|                         UnformattedDevice ZoneState DeviceCorrupt
|-- ErasureCodingError    EcEncoding EcReconstruction InsufficientShards EcPolicyNotFound
|                         StripeNotFound InvalidEcConfiguration Destage CodecSelfTest
|-- AccelerationError     DmaAllocation SpdkInitialisation SpdkBdev IsalEncoding IsalMatrix
|-- CatalogueError        IndexCorrupt IndexFull LogDamaged CheckpointMissing
|-- NodeError             Configuration TenantNotFound QuotaExceeded RateLimitExceeded Replication
|-- HardwareError         HardwareDiscovery NvmeCommand SmartUnavailable
|-- CompressionError      Compression Decompression
|-- ControlPlaneError     KubernetesApi PrometheusConnection PrometheusQuery PrometheusParse
|                         DurationParse QuantityParse InvalidSelector InvalidPolicy
|                         VersionConflict LeaseLost MayastorApi NodeApi NodeUnreachable
|                         NodeRecord AssignmentRefused
`-- MigrationError        MigrationInProgress MigrationFailed MigrationTimeout ReplicaSyncFailed
                          NoSuitablePool

The gateway has one table from these to S3 codes and HTTP statuses, the control API another.
"""

from __future__ import annotations

from typing import ClassVar


class CouchestorError(Exception):
    """Root of every error CoucheStor raises on purpose.

    Args:
        message: What is wrong, where, and what to do next; shown to people as it is.
        context: Structured facts (ids, sizes, paths) for logs and for programs.
    """

    subsystem: ClassVar[str] = "couchestor"

    def __init__(self, message: str, /, **context: object) -> None:
        super().__init__(message)
        self.message = message
        self.context = context

    def __str__(self) -> str:
        return self.message


# -- categories ---------------------------------------------------------------------------------


class ClientError(CouchestorError):
    """The request is wrong; repeating it unchanged fails again."""


class TransientError(CouchestorError):
    """Likely to succeed later."""

    def __init__(
        self, message: str, /, *, retry_after_seconds: float = 1.0, **context: object
    ) -> None:
        super().__init__(message, **context)
        self.retry_after_seconds = retry_after_seconds


class CapacityError(CouchestorError):
    """No room left for a write; reads are unharmed."""


class IntegrityError(CouchestorError):
    """Bytes are not what their checksum says."""


class UnavailableError(CouchestorError):
    """Something needed is missing or broken until a person acts."""


# -- object store -------------------------------------------------------------------------------


class ObjectStoreError(CouchestorError):
    """The catalogue or a body refused an operation."""

    subsystem = "object-store"


class NoSuchBucketError(ObjectStoreError, ClientError):
    """The bucket does not exist."""


class NoSuchKeyError(ObjectStoreError, ClientError):
    """The key does not exist in the bucket."""


class NoSuchVersionError(ObjectStoreError, ClientError):
    """The key has no version with this id."""


class DeleteMarkerError(ObjectStoreError, ClientError):
    """The version named is a delete marker, which has no content; ``context`` tells of it."""


class NoSuchUploadError(ObjectStoreError, ClientError):
    """The upload does not exist: never started, completed or aborted."""


class BucketAlreadyExistsError(ObjectStoreError, ClientError):
    """The bucket exists; ``context['owner']`` says whose it is."""


class NoSuchSettingError(ObjectStoreError, ClientError):
    """The bucket has no such setting; ``context['setting']`` says which."""


class BucketNotEmptyError(ObjectStoreError, ClientError):
    """Objects or uploads are still in the bucket."""


class PreconditionFailedError(ObjectStoreError, ClientError):
    """A condition of the write did not hold; ``context['condition']`` names it."""


class InvalidPartError(ObjectStoreError, ClientError):
    """A part named at completion was not uploaded or has another ETag."""


class InvalidPartOrderError(ObjectStoreError, ClientError):
    """Parts named at completion are not in ascending order."""


class PartTooSmallError(ObjectStoreError, ClientError):
    """A part other than the last is smaller than the minimum."""


class BodyTruncatedError(ObjectStoreError, ClientError):
    """The client sent fewer bytes than it announced, or went away."""


class BodyTooLongError(ObjectStoreError, ClientError):
    """The client sent or announced more bytes than are allowed."""


class DigestMismatchError(ObjectStoreError, ClientError, IntegrityError):
    """The body differs from a digest the client gave; ``context['digest']`` names which."""


class StoreFullError(ObjectStoreError, CapacityError):
    """No free zone is left for a write."""


class StoreReadOnlyError(ObjectStoreError, UnavailableError):
    """Fewer than m + 1 devices are healthy, so no write can be made durable."""


class OverloadedError(ObjectStoreError, TransientError):
    """A bounded queue is full."""


class VersionGoneError(ObjectStoreError, TransientError):
    """A version was replaced or deleted while it was read, and its space given to others."""


# -- devices ------------------------------------------------------------------------------------


class DeviceError(CouchestorError):
    """A device refused or failed a command; ``context['device']`` names it."""

    subsystem = "device"


class DeviceGoneError(DeviceError, UnavailableError):
    """The device has disappeared: unplugged, unmounted, its folder deleted."""


class DeviceStalledError(DeviceGoneError):
    """A command did not end within the deadline; it may still take effect at any time."""


class DeviceIoError(DeviceError, UnavailableError):
    """A read, write or flush failed; after a failed flush nothing unflushed can be trusted."""


class DeviceUnfitError(DeviceError, UnavailableError):
    """The device works but failed its tests: too slow beside the others, or wrong bytes."""


class DeviceFullError(DeviceError, CapacityError):
    """The medium has no room (ENOSPC, EDQUOT)."""


class DeviceStarvedError(DeviceError, TransientError):
    """The process had no descriptor or memory for a command: says nothing about the device."""


class ForeignDeviceError(DeviceError, UnavailableError):
    """The device belongs to another node, or carries data that is not CoucheStor's."""


class StaleDeviceError(DeviceError, UnavailableError):
    """The device is an old copy of a member of this node."""


class DeviceInUseError(DeviceError, UnavailableError):
    """Another daemon holds the device."""


class DuplicateDeviceError(DeviceError, UnavailableError):
    """The same device is configured twice."""


class UnformattedDeviceError(DeviceError, UnavailableError):
    """The device carries no identity."""


class ZoneStateError(DeviceError):
    """A command does not fit the zone's state, e.g. a write that is not at the write pointer."""


class DeviceCorruptError(DeviceError, IntegrityError, UnavailableError):
    """The device's own structures do not verify."""


# -- erasure coding -----------------------------------------------------------------------------


class ErasureCodingError(CouchestorError):
    """A stripe could not be encoded, read or rebuilt."""

    subsystem = "erasure-coding"


class EcEncodingError(ErasureCodingError, UnavailableError):
    """The codec failed to encode."""


class EcReconstructionError(ErasureCodingError, IntegrityError):
    """The codec failed to rebuild shards from the ones given."""


class InsufficientShardsError(ErasureCodingError, IntegrityError, UnavailableError):
    """Fewer than k shards of a stripe could be read and verified."""


class EcPolicyNotFoundError(ErasureCodingError, ClientError):
    """No such erasure-coding policy."""


class StripeNotFoundError(ErasureCodingError, IntegrityError):
    """The place where a stripe should be holds something else."""


class InvalidEcConfigurationError(ErasureCodingError, ClientError):
    """The geometry or policy is impossible."""


class DestageError(ErasureCodingError, TransientError):
    """Journal extents could not be moved into a stripe now."""


class CodecSelfTestError(ErasureCodingError, IntegrityError, UnavailableError):
    """The codec's output differs from the golden vectors: refuse to serve."""


# -- acceleration -------------------------------------------------------------------------------


class AccelerationError(CouchestorError):
    """DMA memory, SPDK or ISA-L failed."""

    subsystem = "acceleration"


class DmaAllocationError(AccelerationError, CapacityError):
    """Aligned or pinned memory could not be had."""


class SpdkInitialisationError(AccelerationError, UnavailableError):
    """The SPDK target could not be reached or started."""


class SpdkBdevError(AccelerationError, UnavailableError):
    """An SPDK block device refused a command."""


class IsalEncodingError(AccelerationError, EcEncodingError):
    """ISA-L could not be loaded or called."""


class IsalMatrixError(AccelerationError, EcReconstructionError):
    """A coding matrix could not be built or inverted."""


# -- index and log ------------------------------------------------------------------------------


class CatalogueError(CouchestorError):
    """The index, the mutation log or a checkpoint."""

    subsystem = "catalogue"


class IndexCorruptError(CatalogueError, IntegrityError, UnavailableError):
    """The live index does not verify: `couchestor recover` rebuilds it."""


class IndexFullError(CatalogueError, CapacityError):
    """The index has reached the size that is its limit, or has no room on its medium."""


class LogDamagedError(CatalogueError, IntegrityError, UnavailableError):
    """The mutation log has a gap: more devices lost than the replicas allow."""


class CheckpointMissingError(CatalogueError, UnavailableError):
    """A checkpoint is needed and no complete one was found."""


# -- node ---------------------------------------------------------------------------------------


class NodeError(CouchestorError):
    """Configuration, tenants, limits, replication."""

    subsystem = "node"


class ConfigurationError(NodeError, ClientError):
    """A setting is unknown or impossible; the message is one line a person can act on."""


class TenantNotFoundError(NodeError, ClientError):
    """No such tenant."""


class QuotaExceededError(NodeError, ClientError, CapacityError):
    """A bucket's or tenant's quota is used up."""


class RateLimitExceededError(NodeError, TransientError):
    """Too many requests from one identity."""


class ReplicationError(NodeError, TransientError):
    """A replica could not be written."""


# -- hardware -----------------------------------------------------------------------------------


class HardwareError(CouchestorError):
    """Discovery and health of hardware."""

    subsystem = "hardware"


class HardwareDiscoveryError(HardwareError, UnavailableError):
    """Devices could not be enumerated."""


class NvmeCommandError(HardwareError, UnavailableError):
    """An NVMe command failed."""


class SmartUnavailableError(HardwareError, UnavailableError):
    """The device gives no SMART data."""


# -- compression --------------------------------------------------------------------------------


class CompressionFailureError(CouchestorError):
    """LZ4."""

    subsystem = "compression"


class CompressionError(CompressionFailureError, UnavailableError):
    """A buffer could not be compressed."""


class DecompressionError(CompressionFailureError, IntegrityError):
    """Compressed bytes do not decode to the recorded length."""


# -- control plane ------------------------------------------------------------------------------


class ControlPlaneError(CouchestorError):
    """The operator's surroundings."""

    subsystem = "control-plane"


class KubernetesApiError(ControlPlaneError, TransientError):
    """The Kubernetes API refused or failed a call; ``context['status']`` is the HTTP status."""


class MayastorApiError(ControlPlaneError, TransientError):
    """Mayastor's REST API refused or failed a call; ``context['status']`` is the HTTP status."""


class NodeApiError(ControlPlaneError, TransientError):
    """A node answered a call with an error, or with something that is none of a node's answers."""


class NodeUnreachableError(ControlPlaneError, TransientError):
    """A node could not be connected to, or did not answer in time."""


class NodeRecordError(ControlPlaneError, IntegrityError):
    """A record of the node API does not fit; ``context['path']`` names the field."""


class AssignmentRefusedError(ControlPlaneError, ClientError):
    """A node will not take what it was sent; ``context['refusal']`` says why, as the node does."""


class PrometheusConnectionError(ControlPlaneError, TransientError):
    """Prometheus could not be reached."""


class PrometheusQueryError(ControlPlaneError, ClientError):
    """Prometheus refused the query."""


class PrometheusParseError(ControlPlaneError, IntegrityError):
    """Prometheus answered something that is not a result."""


class DurationParseError(ControlPlaneError, ClientError):
    """A text is not a duration."""


class QuantityParseError(ControlPlaneError, ClientError):
    """A text is not a Kubernetes quantity."""


class InvalidSelectorError(ControlPlaneError, ClientError):
    """A label selector contradicts itself."""


class InvalidPolicyError(ControlPlaneError, ClientError):
    """A policy resource asks for the impossible; ``context['field']`` names the field."""


class VersionConflictError(ControlPlaneError, TransientError):
    """An object is no longer as it was read, and was left as it is: read it again."""


class LeaseLostError(ControlPlaneError, TransientError):
    """This operator does not hold the Lease any more, so that another one may act."""


# -- migration ----------------------------------------------------------------------------------


class MigrationError(CouchestorError):
    """A volume's move between tiers."""

    subsystem = "migration"


class MigrationInProgressError(MigrationError, TransientError):
    """The volume is already being migrated, or as many are as the policy allows."""


class MigrationFailedError(MigrationError, UnavailableError):
    """A migration step failed; every old replica was kept."""


class MigrationTimeoutError(MigrationError, TransientError):
    """The new replica did not come online and synced in time; every old replica was kept."""


class ReplicaSyncFailedError(MigrationError, UnavailableError):
    """The new replica failed while synchronising."""


class NoSuitablePoolError(MigrationError, CapacityError):
    """No pool of the target tier is online with enough room."""
