/** The files that `convert` makes or empties, and what becomes of them where it fails. */
import { isQcow2Error } from '../base/errors.ts';
import { beginsInLanes } from '../convert/lane.ts';
import { type ConvertResult, worthWorkers } from '../convert/options.ts';
import { allSources } from '../convert/plan.ts';
import type { Disk } from '../image/disk.ts';
import type { NodeFileStorage } from '../storage/node-file.ts';
import { hostInMode } from './cache-mode.ts';
import { type Host, UsageError } from './command.ts';
import { type Course, nameOf } from './convert-course.ts';
import type { ConvertRequest } from './convert-request.ts';
import { RAW_WRITE } from './image-claims.ts';
import { newPath } from './path-gate.ts';

/** Runs `fill` on the target; what does not come to its end leaves nothing that looks whole. */
export async function withNewFile(
  host: Host,
  request: ConvertRequest,
  {
    disks,
    course,
    copies = false,
  }: {
    readonly disks: readonly Disk[];
    readonly course: Course;
    /** The host copies what comes first, and needs no workers for it. */
    readonly copies?: boolean;
  },
  fill: (file: NodeFileStorage) => Promise<ConvertResult>,
): Promise<ConvertResult> {
  const { target, create } = request;
  const path = newPath(target);
  const isNew = create && !host.exists(path);
  const { workers = 0 } = course;
  const compress = request.compress !== undefined;
  // Emptying a large file takes as long as a thread does to start.
  const isMuch = workers > 0 && (await worthWorkers(allSources(disks), { compress }));
  const movesOnly = !compress && request.outputFormat !== 'luks' && !isEncrypted(request);
  if (isMuch && (copies || (movesOnly && (await beginsInLanes(disks)))) && host.moveInBackground) {
    host.moveInBackground();
  } else if (isMuch) await host.warmWorkers?.(workers);
  const file = openTarget(host, request, path);
  let done = false;
  try {
    const result = await fill(file);
    done = true;
    return result;
  } finally {
    // What is not whole must not look whole: a new file goes, an old one that was emptied stays so.
    if (!done && create && file.kind === 'regular') file.truncate(0);
    file.close();
    if (!done && isNew && file.kind === 'regular') host.remove(path);
  }
}

const isEncrypted = ({ values }: ConvertRequest) => values.has('encrypt.format');

/**
 * Runs what is to be settled before the files of a target are made. Where that fails, what is wrong
 * with these files is told instead: QEMU makes them first.
 */
export async function beforeTargets<T>(
  host: Host,
  request: ConvertRequest,
  { paths, settle }: { readonly paths: readonly string[]; readonly settle: () => Promise<T> },
): Promise<T> {
  try {
    return await settle();
  } catch (cause) {
    for (const path of paths) {
      const isNew = !host.exists(path);
      openTarget(host, request, path, { keeps: !isNew }).close();
      if (isNew) host.remove(path);
    }
    throw cause;
  }
}

/** Opens a file of the target. @throws UsageError in the words of qemu-img */
export function openTarget(
  host: Host,
  request: ConvertRequest,
  path: string,
  { keeps = false }: { readonly keeps?: boolean } = {},
): NodeFileStorage {
  const { target, create, cache, targetDriver: driver } = request;
  const outputFormat = nameOf(request);
  const isMade = create && driver !== 'host_device';
  try {
    const target = create ? host : hostInMode(host, cache);
    const how = { writable: true, create: isMade && !keeps, claim: RAW_WRITE, driver };
    return target.openFile(path, how);
  } catch (cause) {
    if (!isQcow2Error(cause)) throw cause;
    if (create && !isMade) {
      const what = "Protocol driver 'host_device' does not support image creation";
      const why = `${what}, and opening the image failed: ${cause.message}`;
      throw new UsageError(`${target}: error while converting ${outputFormat}: ${why}`);
    }
    const cut = 'Could not resize file: Invalid argument';
    const isCut = isMade && driver === 'file' && isDevice(host, path);
    const why = isCut ? cut : cause.message.replace(/^Could not open/, 'Could not create');
    const message = create
      ? `${target}: error while converting ${outputFormat}: ${why}`
      : `Could not open '${path}': ${cause.message}`;
    throw new UsageError(message);
  }
}

/** Whether a path is that of a device, whose size is not ours to change. */
export function isDevice(host: Host, path: string): boolean {
  if (!host.exists(path)) return false;
  try {
    const file = host.openFile(path);
    file.close();
    return file.isFixed;
  } catch (cause) {
    // Who opens it to be written, says why it cannot be.
    if (!isQcow2Error(cause)) throw cause;
    return false;
  }
}
