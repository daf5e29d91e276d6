/** `convert`: disks, one after another, into a raw or qcow2 file, a block device or a pipe. */
import { concatenatedSize } from '../../convert/options.ts';
import { type Command, UsageError } from '../command.ts';
import { convertImages } from '../convert-images.ts';
import { parseConvert } from '../convert-request.ts';
import { isStream } from '../convert-target.ts';
import { startProgress } from '../progress.ts';

/** The subcommand. */
export const convert: Command = {
  name: 'convert',
  usage:
    'convert [-f FMT] [-O FMT] [-c] [-o OPTIONS] [-B BACKING_FILE -F FMT] [-p] [-q]\n' +
    '          [-S SIZE] [-n [--target-is-zero]] [-l SNAPSHOT] [-m N] [-W] [-r RATE] [-t CACHE]\n' +
    '          [-T CACHE] [-C] [--salvage] [-U] SRC… DST\n' +
    '          convert [OPTIONS] --batch LIST',

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
    await convertImages(host, request, (disks) =>
      startProgress(host, {
        enabled: request.progress,
        total: concatenatedSize(disks),
        stream: isStream(request),
      }),
    );
    return 0;
  },
};
