// Three versions of a Debian-like tree, as the store's benchmark imports them one after the other. Each is a directory of
// its own, so that every file has another inode and ctime than in the version before and must be read again.
//
//   v1  files of this machine's Debian packages (required, important, standard, then the others in the order of a hash
//       of their names) until the tree holds `tree_mib`, and a log of a tenth of its later size
//   v2  and up to `more_files` files of further packages, no more than a fifth of the tree's bytes; the log has grown to
//       `log_mib`
//   v3  one package in fifteen upgraded: four bytes in each 4 KiB page of its files are others, as when a program was
//       linked again; a line added to 50 files; in the middle half of the log one line in a thousand is another
//
// The same machine with the same packages gives the same trees.
#pragma once

#include <string>

namespace mirage::bench {

class Versions {
 public:
  struct Options {
    std::string directory;  // made anew: v1, v2, v3 in it
    std::string source;     // a directory to take as v1's packages and, a part of it, as v2's; empty: dpkg's files
    int tree_mib = 540;
    int more_files = 5'000;
    int log_mib = 100;
    bool reuse = false;     // take what is there, if it was made whole
  };
  // Throws Trouble.
  explicit Versions(const Options& options);
  std::string path(int version) const;  // 1 to 3
  std::string Describe() const;         // a line a version: entries and bytes

 private:
  void TakePackages() const;
  void TakeSource() const;
  void WriteLog(const std::string& path, int mib, bool edited) const;
  void Upgrade() const;

  Options options_;
};

}  // namespace mirage::bench
