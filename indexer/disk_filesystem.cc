#include "indexer/disk_filesystem.h"

#include "indexer/ext_filesystem.h"
#include "indexer/fat_filesystem.h"

namespace mirage {

DiskFilesystem::Summary DiskFilesystem::Examine(std::string_view type, const DiskWindow& window) {
  return KindOf(type) == FilesystemKind::kFat ? FatFilesystem::Examine(window) : ExtFilesystem::Examine(window);
}

Result<std::unique_ptr<DiskFilesystem>> DiskFilesystem::Open(std::string_view type, const DiskWindow& window) {
  switch (KindOf(type)) {
    case FilesystemKind::kExt:
      return ExtFilesystem::Open(window);
    case FilesystemKind::kFat:
      return FatFilesystem::Open(window);
    case FilesystemKind::kOther:
      break;
  }
  return Fail(EINVAL, "the disk reader reads no {}", type);
}

}  // namespace mirage
