/** Names that people give to nodes (`node-name`): no two that are open at once have the same. */
import { Qcow2Error } from '../base/errors.ts';
import type { Storage } from '../storage/storage.ts';
import type { Host } from './command.ts';
import { type Settings, textOf } from './settings.ts';

/**
 * Takes the name that settings have for a node, if any, until its storage is closed.
 * @throws Qcow2Error OUT_OF_RANGE where an open node has it
 */
export function takeNodeName(host: Host, settings: Settings, storage: Storage): void {
  const name = textOf(settings, 'node-name');
  const { nodeNames } = host;
  if (name === undefined || !nodeNames) return;
  if (nodeNames.has(name)) {
    throw new Qcow2Error('OUT_OF_RANGE', `Duplicate nodes with node-name='${name}'`);
  }
  nodeNames.add(name);
  const close = storage.close.bind(storage);
  storage.close = () => {
    nodeNames.delete(name);
    return close();
  };
}
