// Is there a device that runs what was compiled for it? The others ask once.
#include "call.cuh"

bool oracle::device_is_there() {
  static const bool there = [] {
    int devices = 0;
    return cudaGetDeviceCount(&devices) == cudaSuccess && devices > 0;
  }();
  return there;
}
