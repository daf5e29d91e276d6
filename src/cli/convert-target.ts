/** The targets of `convert`: new files, those that are there already, standard output. */
import type { ConvertResult } from '../convert/options.ts';
import type { Disk } from '../image/disk.ts';
import { type Host, UsageError } from './command.ts';
import { type Course, nameOf } from './convert-course.ts';
import { type ConvertRequest, usesBitmaps } from './convert-request.ts';
import { intoQcow2 } from './convert-to-qcow2.ts';
import { intoRaw } from './convert-to-raw.ts';
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
  if (isStream(request)) {
    const { intoStream } = await import('./convert-to-stream.ts');
    return intoStream(host, request, disks, course);
  }
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
    const { intoExisting } = await import('./convert-to-existing.ts');
    return intoExisting(host, request, disks, course);
  }
  if (request.outputFormat === 'raw') return intoRaw(host, request, disks, course);
  if (request.outputFormat === 'luks') {
    const { intoLuks } = await import('./convert-to-luks.ts');
    return intoLuks(host, request, disks, course);
  }
  return intoQcow2(host, request, disks, course);
}
