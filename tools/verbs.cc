#include "tools/verbs.h"

namespace mirage {

const std::vector<Verb>& Verbs() {
  static const std::vector<Verb> kVerbs = {
      {"init", "[DIR]", "make a library", DeclareInit, {}},
      {"import",
       "SOURCE BRANCH[/TAG] [-m MSG] [--parent V]",
       "keep a disk image or a directory as a version",
       DeclareImport,
       {.stages = true}},
      {"log",
       "[VERSION | A..B] [--graph] [-- PATH...]",
       "history; of paths: the versions that changed them",
       DeclareLog,
       {.takes_paths = true}},
      {"show", "VERSION...", "what a version is: source, system, disks, mounts, size", DeclareShow, {}},
      {"ls", "[-lR] V[:PATH]...", "list a directory of a version", DeclareLs, {.prints_paths = true}},
      {"cat", "V:PATH...", "print files of a version", DeclareCat, {}},
      {"stat", "V:PATH...", "print the attributes of files of a version", DeclareStat, {}},
      {"diff",
       "A B [-- PATH...] | A..B | A:PATH B:PATH",
       "what differs: A added, D deleted, M content, m metadata, T type; exit 0 same, 1 differs, 2 trouble",
       DeclareDiff,
       {.trouble = 2, .takes_paths = true, .prints_paths = true}},
      {"branch", "[NAME [V]] | -d NAME [--with-tags]", "list, make or delete branches", DeclareBranch, {}},
      {"tag", "[BRANCH] | V NAME [-f] | -d BRANCH/TAG", "list, make, move or delete tags", DeclareTag, {}},
      {"mount",
       "MOUNTPOINT | --edit BRANCH MOUNTPOINT",
       "mount every version read-only, or a branch for editing",
       DeclareMount,
       {}},
      {"umount",
       "MOUNTPOINT [-m MSG] [--tag T] [--discard]",
       "unmount; of an edited branch: commit, print the version",
       DeclareUmount,
       {}},
      {"overlay",
       "list | resume ID MOUNTPOINT | commit ID [--to BRANCH] | discard ID",
       "edits in progress or left by a crash",
       DeclareOverlay,
       {}},
      {"fsck",
       "[--repair]",
       "verify every hash; exit 0 clean, 1 repaired, 4 damage is left, 8 could not run",
       DeclareFsck,
       {.trouble = 8, .usage = 8}},
      {"stats", "", "sizes and counts of the library", DeclareStats, {}},
  };
  return kVerbs;
}

}  // namespace mirage
