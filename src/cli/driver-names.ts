/**
 * The drivers that QEMU 7.2 knows, by their names: an image may name one for its backing file that
 * nothing here reads, where nobody asks to read it. (`qemu-img --help`; `-u`) Not those of 16 bytes
 * and more, with which QEMU makes images that it does not open.
 */
const DRIVER_NAMES: ReadonlySet<string> = new Set(
  [
    'blkdebug blklogwrites blkverify bochs cloop compress copy-on-read dmg file',
    'ftp ftps gluster host_cdrom host_device http https iscsi luks nbd nfs null-aio null-co',
    'nvme parallels preallocate qcow qcow2 qed quorum raw rbd replication snapshot-access ssh',
    'throttle vdi vhdx vmdk vpc vvfat',
  ].flatMap((line) => line.split(' ')),
);

/** Of these those that make no images: filters, and formats that are only read. */
const READ_ONLY_NAMES: ReadonlySet<string> = new Set(
  [
    'blkdebug blklogwrites blkverify bochs cloop compress copy-before-write copy-on-read dmg',
    'null-aio null-co preallocate quorum replication snapshot-access throttle vvfat',
  ].flatMap((line) => line.split(' ')),
);

/** What is said of a format in which no image is made here. */
export function noCreation(format: string): string {
  if (!READ_ONLY_NAMES.has(format)) return `Unknown file format '${format}'`;
  return `Format driver '${format}' does not support image creation`;
}

/** Drivers that can make images, or open what is there already, and measure none. */
const UNMEASURED_NAMES: ReadonlySet<string> = new Set(
  ['file host_cdrom host_device nbd nvme parallels qcow qed vdi vhdx vmdk vpc'].flatMap((line) =>
    line.split(' '),
  ),
);

/** What is said of a format that nothing is measured for here. */
export function noMeasure(format: string): string {
  if (!UNMEASURED_NAMES.has(format)) return noCreation(format);
  return `Block driver '${format}' does not support size measurement`;
}

/** Whether QEMU has a driver of this name. */
export function isDriverName(name: string): boolean {
  return DRIVER_NAMES.has(name);
}
