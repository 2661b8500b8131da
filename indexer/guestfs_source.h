// A disk image as an import source, read through libguestfs: one launch, one inspection, one stream of files for each
// tree (IMPORT.md says what is read how, and why). There is no call for each file.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "indexer/appliance.h"
#include "indexer/guest_keys.h"
#include "indexer/image_source.h"
#include "indexer/inspection.h"

namespace mirage {

class GuestfsSource final : public ImageSource {
 public:
  struct Options {
    std::vector<Appliance::Drive> drives;  // of one machine, in order; the format as DetectDiskFormat gives it
    std::vector<GuestKey> keys;
    bool skip_unreadable = false;       // a filesystem that cannot be mounted becomes an omission (kUnreadable)
    std::string scratch;                // a directory for the list of names, which is as long as the disk has files
    std::vector<std::string> exclude;   // the sink's patterns: what tar in the guest understands is left out there
    const std::atomic<bool>* interrupted = nullptr;
  };
  explicit GuestfsSource(Options options) : options_(std::move(options)) {}
  // EINVAL: nothing on it that could be imported. EIO: the appliance or the disk. EINTR.
  Result<SourceDescription> Read(ImportSink& sink) override;

 private:
  class TreeReading;
  const Options options_;
};

}  // namespace mirage
