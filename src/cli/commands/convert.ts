/** `convert`: disks, one after another, into a raw or qcow2 file, a block device or a pipe. */
import { concatenatedSize } from '../../convert/options.ts';
import { type Command, UsageError } from '../command.ts';
import { convertImages } from '../convert-images.ts';
import { CONVERT_OPTIONS, parseConvert } from '../convert-request.ts';
import { isStream } from '../convert-target.ts';
import { startProgress } from '../progress.ts';

/** The subcommand. */
export const convert: Command = {
  name: 'convert',
  options: CONVERT_OPTIONS,

  async run(args, host) {
    if (args.some((arg) => arg === '--batch' || arg.startsWith('--batch='))) {
      const { convertBatch } = await import('../convert-batch.ts');
      return convertBatch(host, args);
    }
    const request = parseConvert(args);
    if ('help' in request) {
      host.out(request.help);
      return 0;
    }
    if (host.targetImageOpts && request.create) {
      throw new UsageError('--target-image-opts requires use of -n flag');
    }
    const stream = isStream(request);
    if (request.json && stream) {
      throw new UsageError('--output=json cannot share standard output with the image');
    }
    const result = await convertImages(host, request, (disks) =>
      startProgress(host, {
        enabled: request.progress,
        total: () => concatenatedSize(disks),
        stream: stream || request.json,
      }),
    );
    if (request.json) {
      const { formatJson } = await import('../json.ts');
      const { bytesRead, bytesWritten, diskBytes, bytesSkipped, clusters } = result;
      const members = {
        'disk-size': diskBytes,
        'bytes-read': bytesRead,
        'bytes-written': bytesWritten,
        'bytes-skipped': bytesSkipped,
        clusters: { ...clusters },
      };
      host.out(`${formatJson(members)}\n`);
    }
    return 0;
  },
};
