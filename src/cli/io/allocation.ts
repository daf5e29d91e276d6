/** `alloc` and `map`: what of the disk is in the image itself, and not further down its chain. */
import { formatBytes } from '../../base/sizes.ts';
import type { Extent } from '../../image/disk.ts';
import { formatAmount } from './amount.ts';
import type { IoCommand } from './io-command.ts';
import { parseBytes } from './number.ts';

/** The image itself says what the bytes are, and be it that they are zeros. */
function isAllocated({ depth, kind }: Extent): boolean {
  return depth === 0 && kind !== 'hole';
}

/** `alloc`. */
export const alloc: IoCommand = {
  name: 'alloc',
  alias: 'a',
  synopsis: 'offset [count]',
  summary: 'checks if offset is allocated in the file',
  count: [1, 2],
  needs: 'disk',

  async run(session, args) {
    const { disk } = session.current;
    const guest = parseBytes(session, args[0]!);
    const count = args[1] === undefined ? 512 : parseBytes(session, args[1]);
    const length = Math.max(0, Math.min(count, disk.size - guest));
    let allocated = 0;
    if (length > 0) {
      await session.attempt('is_allocated', async () => {
        for await (const extent of disk.extents(guest, guest + length)) {
          if (isAllocated(extent)) allocated += extent.length;
        }
      });
    }
    const bytes = `${formatBytes(allocated)}/${formatBytes(length)} bytes`;
    session.host.out(`${bytes} allocated at offset ${formatAmount(guest)}\n`);
  },
};

/** `map`. */
export const map: IoCommand = {
  name: 'map',
  synopsis: '',
  summary: 'prints the allocated areas of a file',
  count: [0, 0],
  needs: 'disk',

  async run(session) {
    const { disk } = session.current;
    let area = { guest: 0, length: 0, allocated: false };
    const tell = () => {
      if (area.length > 0) session.host.out(areaLine(area));
    };
    for await (const extent of disk.extents()) {
      const { guest, length } = extent;
      const allocated = isAllocated(extent);
      if (area.allocated === allocated) area.length += length;
      else {
        tell();
        area = { guest, length, allocated };
      }
    }
    tell();
  },
};

function areaLine(area: { guest: number; length: number; allocated: boolean }): string {
  const hex = (value: number) => `0x${value.toString(16)}`;
  const bytes = `${formatAmount(area.length)} (${hex(area.length)}) bytes`;
  const where = `${formatAmount(area.guest)} (${hex(area.guest)})`;
  return `${bytes} ${area.allocated ? '   ' : 'not'} allocated at offset ${where}\n`;
}
