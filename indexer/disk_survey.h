// What lies where on a disk: its partitions, and what libblkid takes each for. Runs in the disk reader's sandbox alone.
#pragma once

#include "indexer/disk_window.h"
#include "indexer/reader_output.h"

namespace mirage {

// Sends a kPartition for the whole disk if it has no partition table, else for each partition but extended ones; and a
// kObstacle if that is not the whole truth: a table of another kind, or one that overlaps or leads behind the end.
Status SurveyDisk(const DiskWindow& disk, ReaderOutput& output);

}  // namespace mirage
