// The rows of an rpm database of the sqlite kind. Runs in the disk reader's sandbox alone.
#pragma once

#include "indexer/disk_window.h"
#include "indexer/reader_output.h"

namespace mirage {

// What must be done before the sandbox is entered: sqlite takes its random numbers from a file.
void PrepareSqlite();
// Sends each package's header: kBytes, kEndFile. EIO: not such a database, or damaged.
Status SendRpmHeaders(const DiskWindow& file, ReaderOutput& output);

}  // namespace mirage
