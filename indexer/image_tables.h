// The tables of disk images that are not raw, read as far as it takes to tell a whole file from one that was cut off or
// that lies about itself, before QEMU sees it. Headers are a stranger's: a table is read once, and only where the file has
// data, so that the work is bounded by what the file holds.
#pragma once

#include <string_view>

#include "indexer/image_file.h"

namespace mirage {

// How much of a file must be there: the furthest byte that the tables speak of, and one more. The last cluster or
// grain need not be whole; blocks of vdi, vhd and vhdx always are. EINVAL: the header is damaged, or says what no header says.
Result<uint64_t> Qcow2Length(const ImageFile& file);
Result<uint64_t> VmdkLength(const ImageFile& file);  // of a sparse one with its description inside
Result<uint64_t> VdiLength(const ImageFile& file);
Result<uint64_t> VhdLength(const ImageFile& file);
Result<uint64_t> VhdxLength(const ImageFile& file);

}  // namespace mirage
