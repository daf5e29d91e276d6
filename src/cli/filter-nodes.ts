/** What filters, the nodes above a disk, ask of what they stand on: known once that is open. */
import { Qcow2Error } from '../base/errors.ts';
import type { Format } from '../image/formats.ts';
import type { Storage } from '../storage/storage.ts';
import type { Host } from './command.ts';
import { driverOf, type ImageNode } from './image-node.ts';
import { takeNodeName } from './node-names.ts';
import { checkSettings } from './node-settings.ts';

/** Drivers that take compressed clusters: a format, and a filter that passes them on. */
const COMPRESSING = ['qcow2', 'copy-on-read'];

/**
 * Puts the filters of a node in their places, from the disk up.
 * @param storage the disk's own: names of nodes are taken until it is closed
 * @throws Qcow2Error OUT_OF_RANGE, UNSUPPORTED, READ_ONLY or IO, in QEMU's words
 */
export async function takeFilters(
  host: Host,
  { filters, bare, file }: ImageNode,
  disk: { readonly format: Format; readonly storage: Storage; readonly writable: boolean },
): Promise<void> {
  let below: string = bare ? driverOf(file) : disk.format;
  for (const { driver, settings, debug } of filters?.nodes ?? []) {
    takeNodeName(host, settings, disk.storage);
    if (debug) {
      const { debugLimits, debugRules } = await import('./debug-settings.ts');
      debugRules(host, debug.config, debug.settings);
      debugLimits(debug.settings);
    }
    if (driver === 'compress' && !COMPRESSING.includes(below)) {
      const what = `Compression is not supported for underlying format: ${below}`;
      throw new Qcow2Error('UNSUPPORTED', what);
    }
    // What is read is to be written below it, whoever asks.
    if (driver === 'copy-on-read' && !disk.writable) {
      throw new Qcow2Error('READ_ONLY', 'Block node is read-only');
    }
    if (!debug) checkSettings(settings, driver);
    below = driver;
  }
}
