/** The library, as browsers and Node both have it. */
export { type ErrorCode, isQcow2Error, Qcow2Error } from './base/errors.ts';
export { type BenchOptions, benchDisk } from './convert/bench.ts';
export { type CommitOptions, commitDisk } from './convert/commit.ts';
export { type CompareOptions, type Comparison, compareDisks } from './convert/compare.ts';
export { type ConvertTarget, convert } from './convert/convert.ts';
export { convertInWorkers } from './convert/convert-web.ts';
export { type CopyPlainOptions, type CopyStep, copyPlain } from './convert/copy-plain.ts';
export {
  type ConvertDirtyOptions,
  type CopyBitmapsOptions,
  convertDirty,
  copyBitmaps,
} from './convert/dirty.ts';
export { type MapEntry, mapDisk } from './convert/map.ts';
export {
  type Measure,
  type MeasureTarget,
  measureQcow2,
  measureRaw,
} from './convert/measure.ts';
export type { ConvertOptions, ConvertResult } from './convert/options.ts';
export { startWebWorkers } from './convert/pool-web.ts';
export { type NewBacking, type RebaseOptions, rebaseImage } from './convert/rebase.ts';
export { type ConvertToDiskOptions, convertToDisk } from './convert/to-disk.ts';
export {
  convertToQcow2,
  convertToQcow2Stream,
  type Qcow2StreamTarget,
  type Qcow2Target,
} from './convert/to-qcow2.ts';
export { convertToRaw, convertToStream, type StreamTarget } from './convert/to-raw.ts';
export type { Header } from './format/header.ts';
export type { Snapshot } from './format/snapshot-table.ts';
export type {
  DataSource,
  Disk,
  Extent,
  Preallocation,
  ResizeOptions,
  WritableDisk,
  ZeroOptions,
} from './image/disk.ts';
export { FORMATS, type Format, probeFormat } from './image/formats.ts';
export { closedGate, type Gate, type GateRequest } from './image/gate.ts';
export { LuksImage, type LuksOpenOptions } from './image/luks/luks-image.ts';
export { type BackingChoice, type OpenDiskOptions, openDisk } from './image/open.ts';
export type { AmendOptions } from './image/qcow2/amend.ts';
export type { GuestRange } from './image/qcow2/bitmap-ranges.ts';
export type { BitmapDescription } from './image/qcow2/bitmap-state.ts';
export type { BitmapOptions } from './image/qcow2/bitmap-verbs.ts';
export type { Bitmaps } from './image/qcow2/bitmaps.ts';
export { type CheckOptions, checkStorage } from './image/qcow2/check.ts';
export type { CheckListener, CheckResult, Repair } from './image/qcow2/check-findings.ts';
export type { Qcow2CreateOptions } from './image/qcow2/create.ts';
export type { DiscardPolicy } from './image/qcow2/give-back.ts';
export type { OverlapOptions } from './image/qcow2/overlap-options.ts';
export { Qcow2Image, type Qcow2OpenOptions } from './image/qcow2/qcow2-image.ts';
export type { SnapshotOptions } from './image/qcow2/snapshot-create.ts';
export type { SnapshotSelector, Snapshots } from './image/qcow2/snapshots.ts';
export { RawImage } from './image/raw/raw-image.ts';
export type { Passphrase, Secret, SecretRequest } from './image/secret.ts';
export { blobStorage } from './storage/blob.ts';
export { type HttpOptions, openHttp } from './storage/http.ts';
export { memoryStorage } from './storage/memory.ts';
export { type OpfsOptions, openOpfsFile } from './storage/opfs.ts';
export type { HttpResource, Storage, StorageCursor, StorageHandle } from './storage/storage.ts';
