// What the workloads run on: a directory tree in two versions, `v1` and `v2` with 1 % of its files changed, on an ext4
// filesystem of its own in a loop-mounted image; and a library that holds both on branch `bench`. Everything lies in one
// working directory; unmounted by the destructor and removed unless it is to be kept.
#pragma once

#include <string>

namespace mirage::bench {

class Fixture {
 public:
  struct Options {
    std::string work = "/var/tmp/mirage-bench";  // made by the fixture; what is there is removed
    std::string source;  // a directory to copy as v1; empty: a generated tree
    int files = 12'000;  // of the generated tree
    int big_mib = 256;   // size of the big file added to either
    bool keep = false;
  };
  // Throws Trouble when something cannot be made (needs root, /dev/fuse and a loop device).
  explicit Fixture(const Options& options);
  ~Fixture();
  Fixture(const Fixture&) = delete;
  Fixture& operator=(const Fixture&) = delete;

  std::string mirage(const std::string& arguments) const;  // the command line for the fixture's library
  std::string native() const { return options_.work + "/ext4"; }
  std::string mount() const { return options_.work + "/mnt"; }
  std::string edit() const { return options_.work + "/edit"; }
  std::string scratch() const { return options_.work + "/scratch"; }
  std::string library() const { return options_.work + "/library"; }
  std::string image() const { return options_.work + "/ext4.img"; }
  std::string binary() const { return binary_; }

  // The two sides of "cold": the filesystem mounted anew (a new daemon), then every kernel cache dropped.
  void ChillNative() const;
  void ChillMirage() const;
  // The two sides of "warm": mounted, and `command` run once.
  void MountMirage() const;    // no-op if mounted
  void UnmountMirage() const;  // no-op if not
  void MountNative() const;
  void UnmountNative() const;
  // Lines about what was made: files, bytes, and what the library takes for them.
  std::string Describe() const;

 private:
  void Generate(const std::string& directory) const;
  void Clean() const;

  Options options_;
  std::string binary_;
};

}  // namespace mirage::bench
