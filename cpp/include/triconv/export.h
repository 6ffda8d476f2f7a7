/* TRICONV_API: what a shared libtriconv exports. Everything else in it is hidden. */
#ifndef TRICONV_EXPORT_H
#define TRICONV_EXPORT_H

#define TRICONV_API __attribute__((visibility("default")))

#endif
