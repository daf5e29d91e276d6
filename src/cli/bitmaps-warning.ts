/** The warning about bitmaps that nobody vouches for, in QEMU's words. */
import type { Host } from './command.ts';

const WARNINGS = {
  2:
    'This qcow2 v2 image contains bitmaps, but they may have been modified by a program without ' +
    'persistent bitmap support; so now they must all be considered inconsistent',
  3:
    'a program lacking bitmap support modified this file, so all bitmaps are now considered ' +
    'inconsistent',
};

/** Warns of an image whose bitmaps are out of date. */
export function warnOfBitmaps(host: Host, version: 2 | 3): void {
  // QEMU ends the second line without a newline.
  const checker = host.program.replace(/-io$/, '-img');
  host.note(`${host.program}: warning: ${WARNINGS[version]}
Some clusters may be leaked, run '${checker} check -r' on the image file to fix.`);
}
