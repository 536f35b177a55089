import numpy as np
from mmseg.datasets.transforms import PhotoMetricDistortion
from mmseg.registry import TRANSFORMS


@TRANSFORMS.register_module()
class CameraPhotoMetricDistortion(PhotoMetricDistortion):
    """``PhotoMetricDistortion`` of the first three channels (blue, green, red), as 8-bit values."""

    def transform(self, results: dict) -> dict:
        image = results['img']
        camera = np.clip(np.rint(image[..., :3]), 0, 255).astype(np.uint8)
        camera = super().transform(dict(img=camera))['img']
        if image.shape[2] > 3:
            camera = np.concatenate([camera.astype(image.dtype), image[..., 3:]], axis=2)
        results['img'] = camera
        return results
