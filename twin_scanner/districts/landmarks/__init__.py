"""The embedded segmenter: districts from bones, lungs and skin, without weights."""
