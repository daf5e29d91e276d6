/** The warning about raw images that are written although nobody said that they are raw. */
import type { Host } from './command.ts';

/** Warns that a file was taken for raw by its content, in QEMU's words. */
export function warnOfGuess(host: Host, filename: string): void {
  const lines = [
    `WARNING: Image format was not specified for '${filename}' and probing guessed raw.`,
    'Automatically detecting the format is dangerous for raw images, ' +
      'write operations on block 0 will be restricted.',
    "Specify the 'raw' format explicitly to remove the restrictions.",
  ];
  host.note(`${lines.join('\n         ')}\n`);
}
