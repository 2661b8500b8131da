// A directory of this machine as an import source. Reads with openat(2) from the top on, follows no symbolic link,
// and so never leaves the directory; mount points below are read as a part of it, but for the kernel's own (proc,
// sysfs, ...), which stay empty directories. A file that changes while it is read comes with the bytes that were
// read, and is named.
#pragma once

#include <atomic>
#include <string>

#include "indexer/image_source.h"

namespace mirage {

class DirectorySource final : public ImageSource {
 public:
  // `skip`: a directory that is left out wherever it is met (the library itself); may be empty.
  DirectorySource(std::string path, std::string skip, const std::atomic<bool>* interrupted)
      : path_(std::move(path)), skip_(std::move(skip)), interrupted_(interrupted) {}
  // EACCES names the file that could not be read: what was not read in full never passes for a version.
  Result<SourceDescription> Read(ImportSink& sink) override;

 private:
  class Walk;
  const std::string path_, skip_;
  const std::atomic<bool>* const interrupted_;
};

}  // namespace mirage
