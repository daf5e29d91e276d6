/** `info`: what the open image says about itself. */
import { alignUp } from '../../base/bits.ts';
import { LuksImage } from '../../image/luks/luks-image.ts';
import { readMetadata } from '../../image/qcow2/open.ts';
import { isNull } from '../image-node.ts';
import { reportImage } from '../image-report.ts';
import type { JsonObject } from '../json.ts';
import { treeText } from '../tree-text.ts';
import { formatAmount } from './amount.ts';
import type { IoCommand } from './io-command.ts';
import type { OpenedDisk } from './open.ts';
import { OVERLAY_CLUSTER_BYTES, OverlayDisk } from './overlay-disk.ts';

/** What is told. Sizes in bytes. */
interface Description {
  readonly format: string;
  readonly clusterSize: number;
  /** Where a virtual machine's state would start. */
  readonly vmState: number;
  readonly specific: JsonObject | undefined;
}

/** `info`. */
export const describe: IoCommand = {
  name: 'info',
  alias: 'i',
  summary: 'prints information about the current file',
  count: [0, 0],
  needs: 'disk',

  async run(session) {
    const { bare, file } = session.current.place;
    const { format, clusterSize, vmState, specific } = await description(session.current);
    // Both names of a driver that needs no format, as QEMU has it.
    if (bare) session.host.out(`format name: ${format}\n`);
    if (bare && isNull(file)) {
      session.host.out(`format name: ${format}\n`);
      session.failed = true;
      return;
    }
    session.host.out(`format name: ${format}
cluster size: ${formatAmount(clusterSize)}
vm state offset: ${formatAmount(vmState)}
`);
    if (specific) session.host.out(`Format specific information:\n${treeText(specific, 1)}`);
  },
};

async function description({ disk, place }: OpenedDisk): Promise<Description> {
  const { format } = disk;
  if (format === 'raw') {
    const name = place.bare ? place.file.driver : format;
    return { format: name, clusterSize: 0, vmState: 0, specific: undefined };
  }
  if (disk instanceof OverlayDisk) return overlayDescription(disk);
  const storage = disk instanceof LuksImage ? disk.container : disk.sources[0]!.storage;
  const report = await reportImage(storage, {
    filename: place.path,
    format,
    allocatedBytes: 0,
    resolve: (name) => name,
  });
  if (format === 'luks') {
    const specific = report.specific?.data as JsonObject;
    return { format, clusterSize: 0, vmState: 0, specific };
  }
  const { l2Span } = (await readMetadata(storage)).geometry;
  return {
    format,
    clusterSize: report.clusterSize ?? 0,
    vmState: alignUp(disk.size, l2Span),
    specific: report.specific?.data as JsonObject | undefined,
  };
}

/** That of a new image, since changes are kept as one would keep them. */
function overlayDescription(disk: OverlayDisk): Description {
  const l2Span = (OVERLAY_CLUSTER_BYTES / 8) * OVERLAY_CLUSTER_BYTES;
  return {
    format: disk.format,
    clusterSize: OVERLAY_CLUSTER_BYTES,
    vmState: alignUp(disk.size, l2Span),
    specific: {
      compat: '1.1',
      'compression-type': 'zlib',
      'lazy-refcounts': false,
      'refcount-bits': 16,
      corrupt: false,
      'extended-l2': false,
    },
  };
}
