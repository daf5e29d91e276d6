/** Converting disks into whatever a target is: one call for all of them. */
import type { Disk, WritableDisk } from '../image/disk.ts';
import type { Storage } from '../storage/storage.ts';
import type { ConvertOptions, ConvertResult } from './options.ts';
import { type ConvertToDiskOptions, convertToDisk } from './to-disk.ts';
import {
  convertToQcow2,
  convertToQcow2Stream,
  type Qcow2StreamTarget,
  type Qcow2Target,
} from './to-qcow2.ts';
import { convertToRaw, convertToStream, type StreamTarget } from './to-raw.ts';

/** Where a disk is converted to: an open disk, or storage for a new image. */
export type ConvertTarget =
  | WritableDisk
  | { readonly format: 'raw'; readonly file: Storage }
  | { readonly format: 'raw'; readonly stream: StreamTarget }
  | ({ readonly format: 'qcow2' } & Qcow2Target)
  | ({ readonly format: 'qcow2'; readonly stream: Qcow2StreamTarget['file'] } & Omit<
      Qcow2StreamTarget,
      'file'
    >);

/**
 * Converts a disk, or several of them one after another. On failure a new target is no whole
 * image, and the caller's to remove; an open disk holds some of the new bytes.
 * @throws Qcow2Error of any kind; ABORTED when the signal says so
 */
export function convert(
  source: Disk | readonly Disk[],
  target: ConvertTarget,
  options: ConvertOptions & Pick<ConvertToDiskOptions, 'compress'> = {},
): Promise<ConvertResult> {
  const disks = 'sources' in source ? [source] : source;
  if ('sources' in target) return convertToDisk(disks, target, options);
  if (target.format === 'raw') {
    if ('stream' in target) return convertToStream(disks, target.stream, options);
    return convertToRaw(disks, target.file, options);
  }
  if ('stream' in target) {
    return convertToQcow2Stream(disks, { ...target, file: target.stream }, options);
  }
  return convertToQcow2(disks, target, options);
}
