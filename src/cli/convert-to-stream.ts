/** Standard output as the target of `convert`: raw, or an image written front to back. */
import type { ConvertResult } from '../convert/options.ts';
import { convertToStream } from '../convert/to-raw.ts';
import type { Disk } from '../image/disk.ts';
import { type Host, UsageError } from './command.ts';
import { type Course, explainCreation } from './convert-course.ts';
import type { ConvertRequest } from './convert-request.ts';
import { newTarget, sized } from './convert-to-qcow2.ts';
import { qcow2Options } from './qcow2-options.ts';

/** Onto standard output. */
export async function intoStream(
  host: Host,
  request: ConvertRequest,
  disks: readonly Disk[],
  course: Course,
): Promise<ConvertResult> {
  if (request.outputFormat === 'luks') {
    throw new UsageError('A LUKS container cannot be written to standard output');
  }
  const output = host.openOutput();
  if (request.outputFormat === 'raw') {
    await course.onTarget?.({});
    return convertToStream(disks, output, course);
  }
  const { convertToQcow2Stream } = await import('../convert/to-qcow2.ts');
  const { size: _, ...create } = await explainCreation(request, () =>
    qcow2Options(sized(request, disks), undefined),
  );
  const { compress } = request;
  const { onLength } = course;
  await course.onTarget?.(newTarget(request, create));
  return convertToQcow2Stream(
    disks,
    { file: output, create, compress, ...(onLength ? { onLength } : {}) },
    course,
  );
}
