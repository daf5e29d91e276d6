/** The targets of `convert`: new files, those that are there already, standard output. */
import { isQcow2Error, Qcow2Error } from '../base/errors.ts';
import { isUnmapped } from '../convert/collect.ts';
import type { ConvertResult } from '../convert/options.ts';
import { unwrittenFrom } from '../convert/unwritten.ts';
import type { Disk } from '../image/disk.ts';
import { isTold } from '../image/qcow2/corruption.ts';
import { type Host, UsageError } from './command.ts';
import { type Course, nameOf } from './convert-course.ts';
import { type ConvertRequest, usesBitmaps } from './convert-request.ts';
import { intoExisting } from './convert-to-existing.ts';
import { intoQcow2 } from './convert-to-qcow2.ts';
import { intoLuks, intoRaw } from './convert-to-raw.ts';
import { intoStream } from './convert-to-stream.ts';
import { errnoOf } from './errno.ts';
import { explainOpen } from './explain-open.ts';
import { nameImage } from './image-name.ts';
import { newPath } from './path-gate.ts';
import { refuseSourceAsTarget } from './same-file.ts';

/** The target is standard output. */
export function isStream({ create, target }: ConvertRequest): boolean {
  return create && (target === '-' || target === '/dev/stdout');
}

/** Converts into whatever the request says. */
export async function convertInto(
  host: Host,
  request: ConvertRequest,
  disks: readonly Disk[],
  course: Course,
): Promise<ConvertResult> {
  if (isStream(request) && usesBitmaps(request)) {
    throw new UsageError('Bitmaps are of no use with this target');
  }
  if (isStream(request)) return intoStream(host, request, disks, course);
  if (!request.create && !host.targetImageOpts && request.unopenable) throw request.unopenable;
  if (request.create) newPath(request.target);
  const format = request.create || host.targetImageOpts ? undefined : nameOf(request);
  const name = async () => nameImage(host, request.target, format, { role: 'target' });
  // What is no name of anything can be neither made nor opened.
  const { path, node } = await (request.create ? name() : explainOpen(request.target, name));
  refuseSourceAsTarget(host, path, disks);
  const { file } = node;
  // A kind of file that the name asks for is looked after where the file is opened as an image.
  const isPlain = file.driver === 'file' && (request.targetDriver ?? !file.kind);
  const isFile = request.outputFormat === 'raw' && isPlain;
  if (!request.create && (host.targetImageOpts || !isFile || node.settings.size > 0)) {
    return intoExisting(host, request, disks, course);
  }
  if (request.outputFormat === 'raw') return intoRaw(host, request, disks, course);
  if (request.outputFormat === 'luks') return intoLuks(host, request, disks, course);
  return intoQcow2(host, request, disks, course);
}

/** A failure in the words of a person who waits for a copy. */
export function explainFailure(request: ConvertRequest, cause: unknown): unknown {
  if (!isQcow2Error(cause) || cause.code === 'ABORTED') return cause;
  const { code, guest, message } = cause;
  const unwritten = isStream(request) ? undefined : unwrittenFrom(cause);
  if (unwritten !== undefined) {
    const what = `error while writing at byte ${unwritten}: ${errnoOf(cause).text}`;
    return new Qcow2Error(code, what, undefined, cause);
  }
  const where = guest === undefined ? 'the source' : `at byte ${guest}`;
  const isNotSaid = isTold(cause) || (code === 'IO' && isUnmapped(cause));
  if (guest !== undefined && isNotSaid) {
    const what = `error while reading block status at offset ${guest}: ${errnoOf(cause).text}`;
    return new Qcow2Error(code, what);
  }
  if (code === 'CORRUPT') {
    const place = cause.at === undefined ? '' : ` (at offset 0x${cause.at.toString(16)})`;
    return new Qcow2Error(code, `error while reading ${where}: ${message}${place}`);
  }
  if (code === 'UNSUPPORTED' && guest !== undefined) {
    return new Qcow2Error(code, `error while writing ${where}: Operation not supported`);
  }
  if (guest !== undefined) return new Qcow2Error(code, `error while reading ${where}: ${message}`);
  return cause;
}
