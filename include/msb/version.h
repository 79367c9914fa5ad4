// The version of the library. It is defined only here; the build system reads it from this file.
// Versions follow semantic versioning; before 1.0, a minor version may change the API.

#ifndef MSB_VERSION_H_
#define MSB_VERSION_H_

#define MSB_VERSION_MAJOR 0
#define MSB_VERSION_MINOR 1
#define MSB_VERSION_PATCH 0
#define MSB_VERSION_STRING "0.1.0"

#endif  // MSB_VERSION_H_
