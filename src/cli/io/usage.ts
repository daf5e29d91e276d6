/** What `qcow2-io --help` prints. */

/** @param program the name that the tool was called by */
export function usageText(program: string): string {
  return `Usage: ${program} [OPTIONS]... [-c COMMAND]... [FILE]
Reads and writes disk images in QEMU's formats by hand or by script: raw and qcow2.

  -c, --cmd COMMAND    run a command; without any, commands come from standard input
  -f, --format FMT     raw or qcow2; found out from the content where not given
      --image-opts     FILE is a list of settings: driver=qcow2,file.filename=PATH,...
  -r, --read-only      write nothing
  -s, --snapshot       keep changes in memory, and drop them at the end
  -C, --copy-on-read   copy what reads find in a backing file
  -t, --cache=MODE     none, writeback, writethrough, directsync or unsafe
  -n, --nocache        as -t none
  -d, --discard=MODE   unmap or ignore
  -U, --force-share    read although another process may be writing
  -i, --aio=MODE       threads, native or io_uring: accepted
  -k, --native-aio     accepted
  -m, --misalign       accepted
  -T, --trace SPEC     accepted
  -h, --help           print this
  -V, --version        print the version

'${program} -c help' lists the commands.
`;
}
