/**
 * Every limit of the library, with where it comes from. A limit that the format leaves open is
 * QEMU's: an image that QEMU opens is opened here, and nothing beyond is allocated for.
 */

/** cluster_bits, both ends included. Format: at least 9; QEMU's ceiling: 21 (2 MiB). */
export const CLUSTER_BITS_MIN = 9;
export const CLUSTER_BITS_MAX = 21;

/** Extended L2 entries need 16 KiB clusters: 32 subclusters of at least 512 bytes. */
export const CLUSTER_BITS_MIN_EXTENDED = 14;

/** refcount_order: widths of 1 to 64 bits. */
export const REFCOUNT_ORDER_MAX = 6;

/** Bytes of the L1 table (QEMU's QCOW_MAX_L1_SIZE). */
export const L1_BYTES_MAX = 32 * 1024 * 1024;

/** Bytes of the refcount table (QEMU's QCOW_MAX_REFTABLE_SIZE). */
export const REFCOUNT_TABLE_BYTES_MAX = 8 * 1024 * 1024;

/** Snapshots of one image, and bytes of their table: 1 KiB each on average (QEMU). */
export const SNAPSHOTS_MAX = 65536;
export const SNAPSHOT_TABLE_BYTES_MAX = 1024 * SNAPSHOTS_MAX;

/** L1 tables of snapshots whose L2 tables are kept in mind, by who asks for that: ours. */
export const INACTIVE_L1_BYTES_MAX = 16 * 1024 * 1024;

/** Extra data of one snapshot table entry (QEMU's QCOW_MAX_SNAPSHOT_EXTRA_DATA). */
export const SNAPSHOT_EXTRA_BYTES_MAX = 1024;

/** Bytes of a backing file name (format). */
export const BACKING_NAME_BYTES_MAX = 1023;

/** Bytes of the backing format name (QEMU: a 16-byte buffer with its NUL). */
export const BACKING_FORMAT_BYTES_MAX = 15;

/** Dirty bitmaps of one image, and bytes of their directory (QEMU). */
export const BITMAPS_MAX = 65535;
export const BITMAP_DIRECTORY_BYTES_MAX = 1024 * BITMAPS_MAX;
/** Bytes of one bitmap, stored (QEMU's BME_MAX_PHYS_SIZE). */
export const BITMAP_BYTES_MAX = 512 * 1024 * 1024;
/** Bytes of a bitmap's name (QEMU's BDRV_BITMAP_MAX_NAME_SIZE). */
export const BITMAP_NAME_BYTES_MAX = 1023;
/** granularity_bits, both ends included (QEMU). */
export const BITMAP_GRANULARITY_BITS_MIN = 9;
export const BITMAP_GRANULARITY_BITS_MAX = 31;

/** Virtual size: what QEMU's block layer can address (INT64_MAX rounded down to 1 GiB). */
export const VIRTUAL_BYTES_MAX = 2 ** 63 - 2 ** 30;

/** Images in one backing chain. QEMU has no limit but its stack; rings are caught by this too. */
export const CHAIN_DEPTH_MAX = 200;

/** Default of `cacheBytes`: L2 slices that an opened chain keeps in memory. */
export const L2_CACHE_BYTES_DEFAULT = 32 * 1024 * 1024;

/** Bytes that a reader takes of an L2 table at once (QEMU's default l2-cache-entry-size). */
export const L2_SLICE_BYTES_MAX = 64 * 1024;

/**
 * PBKDF2 iterations that a LUKS header may ask for, unless the caller allows more: QEMU and
 * cryptsetup calibrate to some 2 to 20 million; this many take half a minute.
 */
export const LUKS_ITERATIONS_MAX = 100_000_000;
/** Fewest iterations of a slot, and of the master key's digest, in headers made here (QEMU). */
export const LUKS_ITERATIONS_MIN = 1000;
