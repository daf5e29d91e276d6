/** What `info` says of a LUKS header. */
import { luksAlgorithms } from '../format/luks-algorithms.ts';
import type { LuksHeader, LuksKeySlot } from '../format/luks-header.ts';
import { readLuksContainer } from '../image/luks/container-header.ts';
import { readLuksArea } from '../image/qcow2/luks-area.ts';
import type { Metadata } from '../image/qcow2/open.ts';
import type { Storage } from '../storage/storage.ts';
import type { JsonObject } from './json.ts';

/** What `info` says of a container, and where its disk starts. */
export async function containerReport(
  storage: Storage,
): Promise<{ readonly data: JsonObject; readonly payloadOffset: number }> {
  const header = await readLuksContainer(storage);
  // All but that it is one.
  const { format: _, ...members } = luksReport(header);
  return { data: members as JsonObject, payloadOffset: header.payloadOffset };
}

/** What `info` says of an encrypted qcow2 image's header. */
export async function areaReport(
  storage: Storage,
  metadata: Metadata,
): Promise<JsonObject | undefined> {
  const area = await readLuksArea(storage, metadata);
  return area && luksReport(area.header);
}

/**
 * Members in the order that they are printed in.
 * @throws Qcow2Error UNSUPPORTED for an algorithm that QEMU has no name for
 */
function luksReport(header: LuksHeader): JsonObject {
  const { cipher, keyBits, mode, generator, generatorHash, hash } = luksAlgorithms(header);
  return {
    'ivgen-alg': generator,
    'hash-alg': hash,
    'cipher-alg': `${cipher}-${keyBits}`,
    uuid: header.uuid,
    // Only this generator has a hash; what others carry along means nothing.
    'ivgen-hash-alg': generator === 'essiv' ? generatorHash : undefined,
    format: 'luks',
    'cipher-mode': mode,
    slots: header.slots.map(slotMembers),
    'payload-offset': header.payloadOffset,
    'master-key-iters': header.digestIterations,
  };
}

function slotMembers({ active, iterations, keyOffset, stripes }: LuksKeySlot): JsonObject {
  if (!active) return { active, 'key-offset': keyOffset };
  return { active, iters: iterations, 'key-offset': keyOffset, stripes };
}
